//! nginx as a stream proxy, as an administrator would set it up for this: a worker for each core, room for many
//! connections, no logs. Buffers are left at their defaults. UDP listens with `reuseport`, as nginx's manual advises,
//! so that a client's datagrams stay with one worker.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::program::{self, Forks, Scratch, Start};
use super::{Contender, NGINX, Programs, Way};
use crate::launch;
use crate::loads::Protocol;
use crate::process;
use crate::topology::Topology;

/// For each worker, if the limit of open files has room for them; one connection through it is two of these.
const WORKER_CONNECTIONS: u64 = 65_536;
/// Where Debian has the module; elsewhere it may be built in.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) struct Nginx {
    program: PathBuf,
}

impl Nginx {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { program: program::find("nginx", "nginx and libnginx-mod-stream")? })
    }

    fn serve(&self, topology: &Topology, protocol: Protocol, ports: &[u16]) -> anyhow::Result<Programs> {
        let scratch = Scratch::new()?;
        let server = Server {
            protocol,
            workers: program::cores(),
            open_files: process::open_files()?,
            from: Topology::published_address(),
            ports,
            to: Topology::backend_address(),
        };
        let module = Some(Path::new(STREAM_MODULE)).filter(|path| path.exists());
        let config = scratch.file("nginx.conf", &config(scratch.path(), module, &server))?;
        let mut command = launch::sealed_command(&self.program);
        command.arg("-p").arg(scratch.path()).args(["-e", "stderr", "-c"]).arg(config);
        let how = Start { name: NGINX, protocol, ports, forks: Forks::Workers(server.workers) };
        scratch.start(topology, &how, command)
    }
}

impl Contender for Nginx {
    fn name(&self) -> &'static str {
        NGINX
    }

    fn version(&self) -> anyhow::Result<String> {
        let settings = format!("stream, {} workers, no logs", program::cores());
        Ok(program::version(&self.program, &settings))
    }

    fn start(&self, topology: &Topology, protocol: Protocol) -> anyhow::Result<Way> {
        let target = Topology::published_address();
        Ok(Way { target, programs: self.serve(topology, protocol, &[target.port()])? })
    }

    /// One master with its workers has all the ports.
    fn start_idle(&self, topology: &Topology, count: u16) -> anyhow::Result<Option<Programs>> {
        self.serve(topology, Protocol::Tcp, &program::idle_ports(count)).map(Some)
    }
}

struct Server<'a> {
    protocol: Protocol,
    workers: usize,
    open_files: u64,
    from: SocketAddr,
    ports: &'a [u16],
    to: SocketAddr,
}

/// `module`: the stream module, where it isn't built in.
fn config(directory: &Path, module: Option<&Path>, server: &Server<'_>) -> String {
    let mut text = module.map_or_else(String::new, |path| format!("load_module {};\n", path.display()));
    text += &format!(
        "user root;\n\
         daemon off;\n\
         worker_processes {};\n\
         worker_rlimit_nofile {};\n\
         pid {}/nginx.pid;\n\
         error_log stderr crit;\n\
         events {{ worker_connections {}; }}\n\
         stream {{\n\
         \x20 access_log off;\n",
        server.workers,
        server.open_files,
        directory.display(),
        WORKER_CONNECTIONS.min(server.open_files),
    );
    let options = if server.protocol == Protocol::Udp { " udp reuseport" } else { "" };
    for port in server.ports {
        // Writing to a string doesn't fail.
        let _ = writeln!(
            text,
            "  server {{ listen {}:{port}{options}; proxy_pass {}; }}",
            server.from.ip(),
            server.to
        );
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::check_golden;

    #[test]
    fn configuration_of_a_udp_port() {
        let server = Server {
            protocol: Protocol::Udp,
            workers: 2,
            open_files: 20_000,
            from: Topology::published_address(),
            ports: &[5001, 5002],
            to: Topology::backend_address(),
        };
        check_golden(
            "nginx.conf",
            &config(Path::new("/tmp/scratch"), Some(Path::new(STREAM_MODULE)), &server),
        );
    }
}
