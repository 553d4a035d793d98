"""The status page for any WSGI server; its configuration is /etc/jens/main.conf, unless JENS_CONFIG is set."""

from jens.commands.status_runner import application as make_application

application = make_application()
