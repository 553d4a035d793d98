# What ssh shows before a login.
#
# @param text what it says
class banner (
  String $text = 'Only for staff',
) {
  file { '/etc/issue.net':
    ensure  => file,
    content => banner::frame($text),
  }
}
