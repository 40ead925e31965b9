#!/usr/bin/env bash
# Headless rendering needs a software OpenGL from the system. Install it when we may, else say what is missing.
set -euo pipefail

have() { ldconfig -p | grep -q "$1"; }
if have libEGL.so.1 && have libGL.so.1 && ls /usr/lib/*/dri/swrast_dri.so /usr/lib/*/libgallium* >/dev/null 2>&1; then
  exit 0
fi
packages="libegl1 libgl1 libgles2 libgl1-mesa-dri libosmesa6"
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >/dev/null
else
  echo "Rendering without a screen needs a software OpenGL. Please run: sudo apt-get install $packages" >&2
  exit 1
fi
