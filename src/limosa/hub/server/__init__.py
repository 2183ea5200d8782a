"""The hub over HTTP (docs/hub-protocol.md): FastAPI, with requests that block in threads."""
