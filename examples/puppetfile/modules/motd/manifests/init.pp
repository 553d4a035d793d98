# The message of the day.
#
# @param content what it says
class motd (
  String $content,
) {
  file { '/etc/motd':
    ensure  => file,
    content => epp('motd/motd.epp', { 'content' => $content }),
  }
}
