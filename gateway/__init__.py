"""HTTP and JSON in front of the gRPC API: by the annotations google.api.http, with one implementation behind both."""
