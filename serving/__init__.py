"""What every gRPC service of ours needs, whatever it answers."""
