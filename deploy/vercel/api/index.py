"""Vercel: an ASGI app for every path (vercel.json)."""

from authwright.serverless import Serverless

app = Serverless()
