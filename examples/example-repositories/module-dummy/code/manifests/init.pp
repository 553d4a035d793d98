# @summary The smallest useful module: it says where its data came from.
#
# It only prints a message, so it is safe to apply on any machine.
#
# @param greeting
#   What to say. The module's own data has a default; a hostgroup overrides it.
# @param levels
#   The Hiera levels that had data for this machine, most specific first.
#   Every data file of the examples adds one entry (see lookup_options in the
#   common Hiera data).
class dummy (
  String[1]        $greeting,
  Array[String[1]] $levels,
) {
  notify { 'dummy':
    message => epp('dummy/banner.epp', { 'greeting' => $greeting, 'levels' => $levels }),
  }
}
