"""The servers behind the gateway: what they load, and who starts and watches them."""
