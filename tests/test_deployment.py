"""
What the page on deployment has other programs read is what they understand.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from redis_server import free_port
from requirement import program

PAGE = Path(__file__).parent.parent / "docs/howto/deployment.rst"

# nginx as an ordinary user; relative paths are below its -p.
CONFIG = """
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    {site}
}}
"""


@pytest.fixture
def site():
    """
    Return the page's configuration of nginx, without its certificate.
    """
    pattern = r"^\.\. code-block:: nginx\n\n((?:(?: {4}.*)?\n)+)"
    (block,) = re.findall(pattern, PAGE.read_text(), re.MULTILINE)
    block = re.sub(r"^ *ssl_.*\n", "", textwrap.dedent(block), flags=re.MULTILINE)
    return block.replace("443 ssl", f"127.0.0.1:{free_port()}")


def test_nginx(site, tmp_path):
    """Nginx finds no fault with the configuration."""
    # Where Debian has it is no ordinary user's PATH.
    nginx = program("nginx", "/usr/sbin/nginx")
    (tmp_path / "nginx.conf").write_text(CONFIG.format(site=site))
    command = [nginx, "-t", "-q", "-e", "stderr", "-p", tmp_path, "-c", "nginx.conf"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stderr) == (0, "")
