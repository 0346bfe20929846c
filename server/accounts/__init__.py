"""The handlers of AccountService, one module a resource."""
