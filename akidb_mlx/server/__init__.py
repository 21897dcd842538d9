"""The HTTP server of `akidb-mlx serve`, which speaks OpenAI's, Ollama's, TEI's and the rerankers' protocols.

A request passes through the modules in this order: `app` routes it, `security` checks its host and key, `body` reads
and checks its JSON with a class of `dialects/`, `calls` applies the limits, `models` finds the loaded model. `problems`
says how an error is answered.
"""
