//! The course's example with a real server: a database in one sandbox, and a client in another one that knows of it what its
//! link says.

use std::time::Duration;

use e2e::{need, wait};

use super::lab::Lab;

/// What a database may take to come up on a busy machine.
const STARTS: Duration = Duration::from_secs(40);

/// The first words of the container, as an image's would be: files of its own, the password that the variable says, and then
/// the server in its place.
const DATABASE: &str = r#"
    mkdir -p "$DIR/run"
    mariadb-install-db --no-defaults --user=root --datadir="$DIR/data" --auth-root-authentication-method=normal \
        --skip-test-db --skip-name-resolve >"$DIR/install.log" 2>&1 || exit 1
    printf '%s\n' "create user root@'%' identified by '$MYSQL_ROOT_PASSWORD';" \
        "grant all on *.* to root@'%';" "create database $MYSQL_DATABASE;" >"$DIR/first.sql"
    exec mariadbd --no-defaults --user=root --datadir="$DIR/data" --socket="$DIR/run/sock" --pid-file="$DIR/run/pid" \
        --init-file="$DIR/first.sql" --bind-address=0.0.0.0 --port=3306 --skip-name-resolve --innodb-buffer-pool-size=8M
"#;

/// What a linked client says to whom it finds at `$1`.
const CLIENT: &str = r#"mariadb --no-defaults --connect-timeout=5 --protocol="$MY_LINK_PORT_3306_TCP_PROTO" -N -B \
    -h "$1" -P "$MY_LINK_PORT_3306_TCP_PORT" -u root -p"$MY_LINK_ENV_MYSQL_ROOT_PASSWORD" \
    -e "select 1; select database(); create table if not exists posts (id int); select user();" \
    "$MY_LINK_ENV_MYSQL_DATABASE""#;

#[test]
fn a_client_finds_its_database_by_what_its_link_says() {
    let (Some(_), Some(_)) = (need::program("mariadbd"), need::program("mariadb")) else { return };
    let Some(lab) = Lab::linking(&["--icc=false"]) else { return };
    let folder = lab.home.path("mysql");
    std::fs::create_dir(&folder).unwrap();
    let folder = format!("DIR={}", folder.display());
    let own = ["-e", "MYSQL_ROOT_PASSWORD=s3cr3t", "-e", "MYSQL_DATABASE=wp", "-e", &folder];
    let words = ["run", "-d", "--name", "mysql_db", "--expose", "3306"];
    lab.ok(&[&words[..], &own, &["--", "sh", "-c", DATABASE]].concat());
    lab.idle("blog", &["--link", "mysql_db:my_link"]);
    lab.idle("stranger", &[]);
    assert_eq!(lab.inspect("blog", "{{.HostConfig.Links}}"), "[/mysql_db:/blog/my_link]");
    let asks = |who: &str, whom: &str| lab.portmap(&["exec", who, "sh", "-c", CLIENT, "sh", whom]);
    wait::some("database", STARTS, || {
        assert_eq!(
            lab.inspect("mysql_db", "{{.State.Status}}"),
            "running",
            "{}",
            lab.ok(&["logs", "mysql_db"])
        );
        (asks("blog", "my_link").code == 0).then_some(())
    });
    let said = |consumer: &str| format!("1\nwp\nroot@{}", lab.ip(consumer));
    assert_eq!(asks("blog", "my_link").ok(), said("blog"));
    let address = lab.ok(&["exec", "blog", "sh", "-c", "echo $MY_LINK_PORT_3306_TCP_ADDR"]);
    assert_eq!(asks("blog", &address).ok(), said("blog"));
    // As a consumer's first and only command.
    let run = ["run", "--rm", "--link", "mysql_db:my_link", "--", "sh", "-c", CLIENT, "sh", "my_link"];
    assert!(lab.ok(&run).starts_with("1\nwp\nroot@172.17.0."));
    // The password is the one that was given; and who isn't linked doesn't get as far.
    let wrong =
        ["exec", "-e", "MY_LINK_ENV_MYSQL_ROOT_PASSWORD=wrong", "blog", "sh", "-c", CLIENT, "sh", "my_link"];
    assert!(lab.fails(&wrong).1.contains("Access denied for user 'root'"));
    let port = (lab.address("mysql_db", "bridge", "IPAddress"), 3306).into();
    assert!(lab.sandbox("blog").connects(port));
    assert!(!lab.sandbox("stranger").connects(port));
}
