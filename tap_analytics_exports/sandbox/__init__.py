"""The five vendors' services on one machine, written from the vendors' documents.

`tap-analytics-exports-sandbox` starts them and prints a configuration for the tap. They answer as documented,
refusals and oddities included, and know nothing of the tap. A control API on its own port shows what was
asked and served (`/requests`, `/jobs`, `/served`, `/statistics`, `/expected`), makes answers go wrong
(`/faults`), turns knobs (`/settings`), ends credentials (`/revoke`) and forgets everything (`/reset`).
"""
