# @summary What the machines of the hostgroup myapp/frontend have on top.
#
# A level of a hostgroup is a class below the hostgroup's own; site.pp includes
# both. A level needs no class: data alone will do.
#
# @param workers
#   Processes to run. From data/hostgroup/myapp/frontend.yaml; one machine has
#   its own value in data/fqdns.
class hg_myapp::frontend (
  Integer[1] $workers,
) {
  notify { 'hg_myapp::frontend':
    message => "workers=${workers}",
  }
}
