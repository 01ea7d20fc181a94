#![no_main]
liboptimize_fuzz::fuzz!(liboptimize_fuzz::targets::gguf);
