"""Real work while things are killed, stopped, cut, filled and turned back; then every task is looked for.

``python -m chaos --seed 1 --seconds 60``. See CONTRIBUTING.md.
"""
