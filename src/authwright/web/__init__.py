"""HTTP: one file per group of routes; wire models stand beside the routes that use them."""
