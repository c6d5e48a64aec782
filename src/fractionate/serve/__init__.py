"""The measured pairs of a run as an endpoint that speaks OpenAI's chat protocol.

A request passes `server` (connections) → `app` (routes) → `requests` (reading, by the models of `parameters`) →
`catalog` and `plan` (its pair) → `admission` (keys, slots) → `answer` (the calls) → `upstream` (one call, within the
budget of `ledger`) → `formats` (the reply). Afterwards `traffic` writes the `record`, takes feedback and runs the
`shadow`.
"""
