"""The measured pair as an endpoint that speaks OpenAI's chat protocol.

One request goes: `app` (routes) → `keys` → `chat` (strict reading) → `catalog` (which pair) → `admission` (a place) →
`answer` (the strategy's program, call by call) → `upstream` (one call: retries, budget) → `replies` (the wire).
"""
