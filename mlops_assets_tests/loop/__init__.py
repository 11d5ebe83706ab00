"""The whole loop, shown with real parts: gateway, engine, daemon, sensors, people and users."""
