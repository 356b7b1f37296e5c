"""What goes over the wire: request and answer models, and the codec that carries them."""
