"""Makes what Grafana and Prometheus read: dashboards, rules, provisioning, and docs/metrics.md. Not in the package.

`python -m dashboards` writes it all; `make check` compares. The service's own metrics are in `vcrecon.shell.metrics`.
"""
