//! A served sandbox, and servers that it asks, all on loopback. Those listen on a port of the kernel's choice, so that no
//! privilege is needed.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};

use crate::dns::lab::{self, query};
use crate::dns::{Asked, Client, Server, ServerConfig, Settings};
use crate::kernel::NameSockets;
use crate::model::SandboxId;

pub(super) struct Lab {
    pub(super) server: Server,
    pub(super) id: SandboxId,
    /// Where the sandbox's server is, for datagrams and connections.
    pub(super) at: SocketAddr,
    /// Connected to it.
    pub(super) client: UdpSocket,
    files: tempfile::TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut server = Server::new(ServerConfig { host_file: files.path().join("resolv.conf") });
        // One that is free on the address on which most tests have a server to ask.
        server.port = UdpSocket::bind((ip(2), 0)).unwrap().local_addr().unwrap().port();
        *server.zones() = lab::zones();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let at = client.local_addr().unwrap();
        let mut lab = Self { server, id: lab::sandbox(0xc3), at, client, files };
        lab.at = lab.serve();
        lab.client.connect(lab.at).unwrap();
        lab
    }

    /// Serves the sandbox anew. Where.
    pub(super) fn serve(&self) -> SocketAddr {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let at = tcp.local_addr().unwrap();
        self.server.serve(self.id, NameSockets { udp, tcp }, about(true)).unwrap();
        at
    }

    pub(super) fn update(&self, gateway: bool) {
        self.server.update(self.id, about(gateway));
    }

    pub(super) fn host_file(&self, servers: &[&Upstream]) {
        let lines: String = servers.iter().map(|server| format!("nameserver {}\n", server.ip)).collect();
        self.host_file_text(&lines);
    }

    pub(super) fn host_file_text(&self, text: &str) {
        std::fs::write(self.files.path().join("resolv.conf"), text).unwrap();
    }

    pub(super) fn ask(&self, name: &str) -> Vec<u8> {
        self.client.send(&query(name, RecordType::A).to_vec().unwrap()).unwrap();
        self.receive()
    }

    pub(super) fn receive(&self) -> Vec<u8> {
        let mut reply = [0; 4096];
        let length = self.client.recv(&mut reply).unwrap();
        reply[..length].to_vec()
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

fn about(gateway: bool) -> Client {
    Client {
        namespace: "/nonexistent".into(),
        view: lab::consumer(),
        asked: Asked::Host { ipv6: false },
        gateway,
        settings: Settings::default(),
    }
}

const fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

type OverTcp = Box<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send>;

/// Something to ask. Its threads end with the test's process.
pub(super) struct Upstream {
    pub(super) ip: IpAddr,
    counts: Arc<[AtomicUsize; 2]>,
    tcp: Arc<Mutex<OverTcp>>,
}

impl Upstream {
    /// `says` is what comes back for a query, datagram by datagram. Over TCP it is the last of them.
    pub(super) fn new(
        lab: &Lab,
        last: u8,
        says: impl Fn(&[u8]) -> Vec<Vec<u8>> + Clone + Send + 'static,
    ) -> Self {
        let at = SocketAddr::new(ip(last), lab.server.port);
        let (udp, listener) = (UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap());
        let counts: Arc<[AtomicUsize; 2]> = Arc::default();
        let over_tcp = says.clone();
        let tcp: Arc<Mutex<OverTcp>> = Arc::new(Mutex::new(Box::new(move |query| over_tcp(query).pop())));
        let count = Arc::clone(&counts);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                count[0].fetch_add(1, Ordering::SeqCst);
                for reply in says(&buffer[..length]) {
                    let _ = udp.send_to(&reply, from);
                }
            }
        });
        let (count, says) = (Arc::clone(&counts), Arc::clone(&tcp));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let query = read(&mut stream);
                count[1].fetch_add(1, Ordering::SeqCst);
                if let Some(reply) = says.lock().unwrap()(&query) {
                    let _ = stream.write_all(&framed(&reply));
                }
            }
        });
        Self { ip: at.ip(), counts, tcp }
    }

    pub(super) fn says_over_tcp(&self, says: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
        *self.tcp.lock().unwrap() = Box::new(says);
    }

    pub(super) fn asked(&self) -> usize {
        self.counts[0].load(Ordering::SeqCst)
    }

    pub(super) fn asked_over_tcp(&self) -> usize {
        self.counts[1].load(Ordering::SeqCst)
    }
}

/// A message after its length.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

pub(super) fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

fn respond(query: &[u8], change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut reply = Message::from_vec(query).unwrap().into_response();
    change(&mut reply);
    reply.to_vec().unwrap()
}

/// `10.0.0.<last>`.
pub(super) fn address(query: &[u8], last: u8) -> Vec<u8> {
    respond(query, |reply| {
        let name = reply.queries[0].name.clone();
        reply.add_answer(Record::from_rdata(name, 77, RData::A(A([10, 0, 0, last].into()))));
    })
}

pub(super) fn failure(query: &[u8], code: ResponseCode) -> Vec<u8> {
    respond(query, |reply| reply.metadata.response_code = code)
}

pub(super) fn truncated(query: &[u8]) -> Vec<u8> {
    respond(query, |reply| reply.metadata.truncation = true)
}

pub(super) fn code(reply: &[u8]) -> ResponseCode {
    Message::from_vec(reply).unwrap().metadata.response_code
}
