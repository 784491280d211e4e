"""What travels: models of messages, the endpoint table and the config tables."""
