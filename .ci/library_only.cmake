# For llama-cpp-python's build: the bindings need llama.cpp's own library, not the one of its command-line tools.
set(LLAMA_BUILD_COMMON OFF)
