"""The composition root: settings to store to services (`server`), and these to routes (`routes`)."""
