"""The command `tern`: every command calls one room or starts a flow."""
