"""The HTTP server: application, connections and their limits, and the parts that every route uses."""
