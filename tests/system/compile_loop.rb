# A Puppet server, as far as Jens can tell: compiles one machine's catalog over and over, reading the environment anew
# each time.
#
# Run as: ruby compile_loop.rb CONFDIR ENVIRONMENTPATH HIERA_CONFIG STOPFILE [versioned]
# Prints "compiling" after the first catalog, in the end a line for each failure and the number of catalogs, that of
# those that mixed versions, and that of the versions met. Ends after five minutes at the latest.

require 'puppet'
require 'set'

confdir, environmentpath, hiera_config, stop, versioned = ARGV

Puppet.initialize_settings(
  ['--confdir', confdir, '--vardir', File.join(confdir, 'var'), '--environmentpath', environmentpath,
   '--hiera_config', hiera_config, '--log_level', 'crit']
)
Puppet[:versioned_environment_dirs] = true if versioned
Puppet[:environment_timeout] = 0
Puppet[:node_name_value] = 'web01.example.org'
facts = {
  'encgroup_0' => 'myapp',
  'networking' => { 'fqdn' => 'web01.example.org' },
  'os' => { 'name' => 'Debian', 'family' => 'Debian', 'release' => { 'major' => '12' } },
  'virtual' => 'kvm',
}

# The versions in a catalog: each file that the module is made of says its own in the message of a notify.
def compile(facts, versioned)
  environment = Puppet.lookup(:environments).get!('production')
  node = Puppet::Node.new('web01.example.org', environment: environment)
  node.merge(facts)
  node.add_server_facts({ 'serverversion' => Puppet.version })
  node.trusted_data = { 'certname' => 'web01.example.org', 'authenticated' => 'local', 'extensions' => {} }
  catalog = Puppet.override(current_environment: environment, trusted_information: node.trusted_data) do
    Puppet::Parser::Compiler.compile(node)
  end
  raise "unexpected version #{catalog.version}" if versioned && catalog.version !~ /\Aproduction_\d+\z/
  messages = catalog.resources.select { |resource| resource.type == 'Notify' && resource.title.start_with?('part ') }
  raise "expected four parts, found #{messages.map(&:title)}" unless messages.size == 4
  messages.map { |resource| resource[:message] }.to_set
end

Puppet.override({ environments: Puppet::Environments::Cached.new(
  Puppet::Environments::Directories.new(environmentpath, [])
) }, 'a server looks for environments in one place') do
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 300
  failures, catalogs, mixed, met = [], 0, 0, Set.new
  until File.exist?(stop) || Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    begin
      versions = compile(facts, versioned)
      mixed += 1 if versions.size > 1
      met.merge(versions)
    rescue StandardError => error
      failures << "#{error.class}: #{error.message}".lines.map(&:strip).join(' ')
    end
    catalogs += 1
    if catalogs == 1
      puts 'compiling'
      $stdout.flush
    end
  end
  puts failures, catalogs, mixed, met.size
end
