//! A host, a sandbox on the network `lan` with a neighbour `web`, and servers to ask.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use netcore::dns::{Asked, Attachment, Client, Member, Server, ServerConfig, Settings, View};
use netcore::firewall::Backend;
use netcore::kernel::{HostKernel, Kernel, NameSockets};
use netcore::model::{EndpointId, NetworkId, SandboxId};

use crate::lab::Host;

const LAN: [u8; 32] = [0xaa; 32];
const WEB: [u8; 32] = [0xee; 32];

pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) sandbox: Host,
    pub(crate) server: Server,
    pub(crate) id: SandboxId,
    backend: Backend,
    kernel: HostKernel,
    files: tempfile::TempDir,
}

impl World {
    /// A sandbox that is served and has nobody to ask.
    pub(crate) fn new(backend: Backend) -> Self {
        let (host, sandbox) = (Host::new(), Host::new());
        let files = tempfile::tempdir().expect("a directory");
        let config = ServerConfig { host_file: files.path().join("resolv.conf") };
        let (server, kernel) =
            host.enter(|| (Server::new(config), HostKernel::new("test".to_owned()).expect("a kernel")));
        let id = SandboxId::from_random([1; 32]);
        let world = Self { host, sandbox, server, id, backend, kernel, files };
        world.join("172.22.0.2");
        world.serve(world.sockets(Some(backend)), Asked::These(vec![]));
        world
    }

    pub(crate) fn join(&self, address: &str) {
        let member = Member {
            sandbox: SandboxId::from_random([2; 32]),
            names: vec!["web".to_owned()],
            v4: Some(address.parse().expect("an address")),
            v6: Some("fd00:22::2".parse().expect("an address")),
        };
        self.server.join(NetworkId::from_random(LAN), EndpointId::from_random(WEB), member);
    }

    pub(crate) fn leave(&self) {
        self.server.leave(&NetworkId::from_random(LAN), &EndpointId::from_random(WEB));
    }

    pub(crate) fn sockets(&self, backend: Option<Backend>) -> NameSockets {
        self.kernel.name_sockets(&self.sandbox.path(), backend).expect("sockets")
    }

    pub(crate) fn sockets_in(&self, sandbox: &Host, backend: Backend) -> NameSockets {
        self.kernel.name_sockets(&sandbox.path(), Some(backend)).expect("sockets")
    }

    pub(crate) fn serve(&self, sockets: NameSockets, asked: Asked) {
        self.server.serve(self.id, sockets, self.about(&self.sandbox, asked)).expect("it is served");
    }

    pub(crate) fn update(&self, asked: Asked) {
        self.server.update(self.id, self.about(&self.sandbox, asked));
    }

    fn about(&self, sandbox: &Host, asked: Asked) -> Client {
        let lan = Attachment {
            network: NetworkId::from_random(LAN),
            name: "lan".to_owned(),
            gw_priority: 0,
            internal: false,
            gateway4: true,
            gateway6: false,
            links: vec![],
        };
        Client {
            namespace: sandbox.path(),
            view: View::new(vec![lan]),
            asked,
            gateway: true,
            settings: Settings::default(),
        }
    }

    /// One more sandbox on the same network.
    pub(crate) fn neighbour(&self) -> Host {
        let neighbour = Host::new();
        let sockets = self.kernel.name_sockets(&neighbour.path(), Some(self.backend)).expect("sockets");
        let about = self.about(&neighbour, Asked::These(vec![]));
        self.server.serve(SandboxId::from_random([3; 32]), sockets, about).expect("it is served");
        neighbour
    }

    pub(crate) fn host_file(&self, text: &str) {
        std::fs::write(self.files.path().join("resolv.conf"), text).expect("a file");
    }

    /// A socket of the sandbox's that talks to its server.
    pub(crate) fn client(&self) -> UdpSocket {
        client(&self.sandbox)
    }
}

pub(crate) fn client(sandbox: &Host) -> UdpSocket {
    let socket = sandbox.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("a socket");
    socket.connect("127.0.0.11:53").expect("a route");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    socket
}

/// Asks for the IPv4 addresses of a name.
pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label is short"));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// What is answered, if anything is.
pub(crate) fn ask(client: &UdpSocket, query: &[u8]) -> Option<Vec<u8>> {
    client.send(query).expect("it is sent");
    let mut reply = [0; 512];
    let length = client.recv(&mut reply).ok()?;
    Some(reply[..length].to_vec())
}

pub(crate) fn stops_answering(world: &World) {
    let client = world.client();
    // A closed port may also say so.
    let _ = client.send(&query(1, "web"));
    assert!(client.recv(&mut [0; 512]).is_err());
}

/// A server that answers everything with one address, over UDP and TCP.
pub(crate) struct Upstream(Arc<AtomicUsize>);

impl Upstream {
    pub(crate) fn new(host: &Host, at: &str, answer: [u8; 4]) -> Self {
        let at: SocketAddr = at.parse().expect("an address and a port");
        let (udp, tcp) = host.enter(|| (UdpSocket::bind(at), TcpListener::bind(at)));
        let (udp, tcp) = (udp.expect("a socket"), tcp.expect("a socket"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let reply = move |query: &[u8], count: &AtomicUsize| {
            count.fetch_add(1, Ordering::SeqCst);
            // The question again, without what follows it.
            let end = 12 + query[12..].iter().position(|byte| *byte == 0).expect("a root") + 5;
            let head = [&query[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
            [&head[..], &query[12..end], &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4], &answer].concat()
        };
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&reply(&buffer[..length], &count), from);
            }
        });
        let count = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let (Ok(mut stream), mut length) = (stream, [0; 2]) else { continue };
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                if stream.read_exact(&mut query).is_ok() {
                    let reply = reply(&query, &count);
                    let length = u16::try_from(reply.len()).expect("it is short").to_be_bytes();
                    let _ = stream.write_all(&[&length[..], &reply].concat());
                }
            }
        });
        Self(asked)
    }

    pub(crate) fn asked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
