# The main manifest: what every machine gets. Jens links code/ to site in each
# environment, and environment.conf names this file (manifest = site/site.pp).
#
# The facts encgroup_0 to encgroup_4 tell a machine's hostgroup: myapp/frontend
# is encgroup_0=myapp, encgroup_1=frontend. An easy way to set them is a file
# such as /etc/puppetlabs/facter/facts.d/hostgroup.yaml on the machine. Facts
# are a machine's own claim: where its root user must not choose the hostgroup,
# let an external node classifier set $encgroup_0 and so on, and write those
# variables here and in hiera.yaml instead of $facts[...].

node default {
  # ['myapp', 'frontend']
  $names = Integer[0, 4]
    .map |$level| { $facts["encgroup_${level}"] }
    .filter |$name| { $name =~ String[1] }

  if $names.empty {
    warning("${trusted['certname']} has no hostgroup: the fact encgroup_0 is not set")
  }

  # hg_myapp, then hg_myapp::frontend. The hostgroup itself must exist; its
  # levels need no class of their own.
  $names.each |$depth, $name| {
    $class = "hg_${names[0, $depth + 1].join('::')}"
    if $depth == 0 or defined($class) {
      include $class
    }
  }
}
