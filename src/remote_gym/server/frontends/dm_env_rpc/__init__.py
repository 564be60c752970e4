"""Sessions for clients of dm_env_rpc, on the port of gRPC."""
