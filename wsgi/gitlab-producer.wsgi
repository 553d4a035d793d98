"""The producer of hints for any WSGI server; its configuration is /etc/jens/main.conf, unless JENS_CONFIG is set."""

from jens.commands.gitlab_producer_runner import application as make_application

application = make_application()
