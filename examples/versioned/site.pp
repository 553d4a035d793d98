# The beginning of the main manifest (code/site.pp of the repository site) for
# environments with versions. These lines come before all that looks up data.
#
# $jens_root is the directory of the version that this catalog is compiled from.
# hiera.yaml reads the data there. `dummy` stands for any module that each of
# your environments has: Puppet found it below that directory.
$jens_root = regsubst(module_directory('dummy'), '/modules/dummy$', '')

node default {
  include hg_myapp
}
