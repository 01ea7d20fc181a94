//! Distillation.
