"""What crosses Kafka: bytes and structs, and every struct that others see."""
