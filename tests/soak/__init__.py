"""Soak of the service: a simulated site of real SSH servers, the real `vcrecon run`, and churn for as long as wanted.

__main__ ─► run ─► site (hosts: processes of simulated hosts)   specs: the spec files, as a person edits them
              ├──► service (`vcrecon run`)  ─► samples ─► judge: is every series flat, is all back at rest
              ├──► watchers (browsers, `status --watch`, `events --follow`)
              └──► churn: what goes wrong, and what people wish, from a seed
"""
