//! Who is reached through a published port, and which port that is.

use super::*;

#[test]
fn tcp_and_udp_answer_on_both_families() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        udp_echo((V4, 53));
        let portmap = Portmap::start(4, &["-p", "8080:80", "-p", "5353:53/udp", "127.0.0.1"]);
        let hosts: Vec<_> = portmap.rows.iter().map(|row| (row.host.as_str(), row.proto.as_str())).collect();
        let want =
            [("0.0.0.0:5353", "udp"), ("[::]:5353", "udp"), ("0.0.0.0:8080", "tcp"), ("[::]:8080", "tcp")];
        assert_eq!(hosts, want);
        assert_eq!(portmap.rows[2].target, "127.0.0.1:80");
        assert_eq!(portmap.rows[2].proxy, portmap.rows[3].proxy, "one process for both families");
        for ip in [V4, V6] {
            assert_eq!(ask_tcp((ip, 8080)), "web");
            assert_eq!(ask_udp((ip, 5353)), "ping");
        }
        assert_eq!(portmap.process.stderr(), "");
    });
}

#[test]
fn an_address_given_is_the_only_one() {
    in_namespace(|| {
        tcp_echo((V6, 80), "six");
        let portmap = Portmap::start(2, &["-p", "127.0.0.1:8080:80", "--publish=[::1]:8081:80", "[::1]"]);
        assert_eq!(portmap.rows[0].target, "[::1]:80");
        assert_eq!((ask_tcp((V4, 8080)), ask_tcp((V6, 8081))), ("six".into(), "six".into()));
        assert!(refuses((V6, 8080)) && refuses((V4, 8081)) && refuses(([127, 0, 0, 2].into(), 8080)));
    });
}

#[test]
fn the_default_address_can_be_set() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let portmap = Portmap::start(1, &["--ip", "127.0.0.2", "-p", "8080:80", "127.0.0.1"]);
        assert_eq!(portmap.rows[0].host, "127.0.0.2:8080");
        assert_eq!(ask_tcp(([127, 0, 0, 2], 8080)), "web");
        assert!(refuses((V4, 8080)));
    });
}

#[test]
fn a_range_is_one_process_and_each_port_leads_to_its_own() {
    in_namespace(|| {
        tcp_echo((V4, 9000), "first");
        tcp_echo((V4, 9500), "middle");
        tcp_echo((V4, 9999), "last");
        // As few descriptors as a shell gives, and more ports than that.
        let mut command = Command::new("sh");
        let script = "ulimit -Sn 256; exec \"$0\" -p 127.0.0.1:7000-7999:9000-9999 127.0.0.1";
        command.arg("-c").arg(script).arg(bin::portmap());
        let portmap = Portmap::start_command(1, command);
        assert_eq!(portmap.rows[0].host, "127.0.0.1:7000-7999");
        assert_eq!(portmap.rows[0].target, "127.0.0.1:9000-9999");
        let answers = [7000, 7500, 7999].map(|port| ask_tcp((V4, port)));
        assert_eq!(answers, ["first", "middle", "last"]);
    });
}

#[test]
fn a_port_nobody_chose_is_printed_and_works() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        udp_echo((V4, 81));
        let portmap =
            Portmap::start(4, &["-p", "80", "-p", "127.0.0.1::80-81/udp", "-p", "[::1]::80", "127.0.0.1"]);
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let ends: Vec<u16> = range.split_whitespace().map(|end| end.parse().unwrap()).collect();
        let tcp: Vec<&Row> = portmap.rows.iter().filter(|row| row.proto == "tcp").collect();
        for row in &tcp {
            assert!((ends[0]..=ends[1]).contains(&row.port()), "{row:?}");
            let ip = if row.host.starts_with('[') { V6 } else { V4 };
            assert_eq!(ask_tcp((ip, row.port())), "web", "{row:?}");
        }
        let udp = portmap.rows.iter().find(|row| row.proto == "udp").unwrap();
        let last: u16 = udp.host.rsplit_once('-').unwrap().1.parse().unwrap();
        assert_eq!(ask_udp((V4, last)), "ping");
    });
}

#[test]
fn the_kernels_ephemeral_range_and_reserved_ports_are_respected() {
    in_namespace(|| {
        // These files show and change the network namespace of whoever opens them: this test's own.
        let set = |name, text| fs::write(Path::new("/proc/sys/net/ipv4").join(name), text).unwrap();
        set("ip_local_port_range", "50000 50003");
        set("ip_local_reserved_ports", "50000-50001");
        let portmap = Portmap::start(4, &["-p", "80", "-p", "81", "127.0.0.1"]);
        let pid = portmap.process.pid();
        let ports: Vec<u16> = portmap.rows.iter().map(Row::port).collect();
        assert_eq!(ports, [50002, 50002, 50003, 50003]);
        assert_eq!(
            refusal(&["-p", "80", "127.0.0.1"]),
            format!(
                "failed to bind host port 0.0.0.0:50003/tcp: address already in use (by portmap, process {pid})"
            )
        );
    });
}

#[test]
fn a_host_without_ipv6_gets_ipv4_only() {
    in_namespace(|| {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        tcp_echo((V4, 80), "web");
        let _portmap = Portmap::start(1, &["-p", "8080:80", "127.0.0.1"]);
        assert_eq!(ask_tcp((V4, 8080)), "web");
    });
}

#[test]
fn a_choice_of_ports_skips_those_that_others_hold() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let _held: Vec<_> = (8000..8015).map(|port| TcpListener::bind((ANY, port)).unwrap()).collect();
        let portmap = Portmap::start(2, &["-p", "8000-8015:80", "127.0.0.1"]);
        assert_eq!(portmap.rows[0].host, "0.0.0.0:8015");
        assert_eq!(ask_tcp((V4, 8015)), "web");
        let refused = refusal(&["-p", "8000-8015:80", "127.0.0.1"]);
        let by = format!("(by portmap, process {})", portmap.process.pid());
        assert_eq!(
            refused,
            format!("failed to bind host port 0.0.0.0:8015/tcp: address already in use {by}")
        );
    });
}

#[test]
fn a_target_may_be_a_name() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let portmap = Portmap::start(2, &["-p", "8080:80", "localhost"]);
        assert_eq!(portmap.rows[0].target, "127.0.0.1:80");
        assert_eq!(ask_tcp((V4, 8080)), "web");
    });
}
