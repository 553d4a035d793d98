# The time zone of the machine.
#
# @param zone its name below /usr/share/zoneinfo
class localtime (
  String $zone = 'UTC',
) {
  file { '/etc/localtime':
    ensure => link,
    target => "/usr/share/zoneinfo/${zone}",
  }
}
