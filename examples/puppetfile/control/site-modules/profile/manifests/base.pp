# What every machine has.
class profile::base {
  include motd
  include localtime
  include banner
}
