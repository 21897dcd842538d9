"""The protocols of the server: each module has the bodies, the answers and the routes of one."""
