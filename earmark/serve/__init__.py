"""Serves models: an HTTP and WebSocket interface, and a page for the browser.

Conventions: bodies of requests are recordings or raw PCM, answers are JSON, times are in seconds from the
start of the recording. No path of the server is ever taken from a request. Needs the extra "serve".
"""
