# @summary What all machines of the hostgroup myapp have in common.
#
# Jens links code/ to hostgroups/hg_myapp, so the class is called hg_myapp.
# It only prints a message, so it is safe to apply on any machine.
#
# @param port
#   Where the application listens. From data/hostgroup/myapp.yaml.
# @param contact
#   Who looks after the machine. From the common Hiera data.
# @param verbosity
#   How much to log. Differs between environments.
# @param mirror
#   Where packages come from. Differs between datacentres.
# @param ca_bundle
#   File with the trusted certificates. Differs between operating systems.
# @param tuned_profile
#   Profile for tuned. Differs between kinds of hardware.
class hg_myapp (
  Integer[1, 65535]                $port,
  String[1]                        $contact       = lookup('contact'),
  Enum['debug', 'info', 'warning'] $verbosity     = lookup('verbosity'),
  String[1]                        $mirror        = lookup('mirror'),
  String[1]                        $ca_bundle     = lookup('ca_bundle'),
  String[1]                        $tuned_profile = lookup('tuned_profile'),
) {
  include dummy

  notify { 'hg_myapp':
    message => "port=${port} contact=${contact} verbosity=${verbosity} mirror=${mirror} ca_bundle=${ca_bundle} tuned_profile=${tuned_profile}",
  }
}
