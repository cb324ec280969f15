-- What crossfade keeps for itself, beside the application's tables. Times are milliseconds since
-- 1970, by the database's clock.

create table crossfade_migration (
    id            integer primary key autoincrement,
    name          text    not null unique,
    manifest      text    not null,
    fingerprint   text    not null,
    phase         text    not null,
    ramp_ppm      integer not null check (ramp_ppm between 0 and 1000000),
    epoch         integer not null,
    changed_at_ms integer not null
) strict;

-- Only ever added to.
create table crossfade_audit (
    id            integer primary key autoincrement,
    migration     integer not null references crossfade_migration,
    at_ms         integer not null,
    from_phase    text,
    from_ramp_ppm integer,
    from_epoch    integer,
    to_phase      text    not null,
    to_ramp_ppm   integer not null,
    to_epoch      integer not null,
    actor         text    not null,
    reason        text,
    forced        integer not null check (forced in (0, 1)),
    evidence      text    not null,
    pause_us      integer not null
) strict;
create index crossfade_audit_by_migration on crossfade_audit (migration, id);

-- Only ever added to.
create table crossfade_evidence (
    id          integer primary key autoincrement,
    migration   integer not null references crossfade_migration,
    kind        text    not null,
    epoch       integer not null,
    phase       text    not null,
    faults      integer not null,
    began_at_ms integer not null,
    details     text    not null
) strict;
create index crossfade_evidence_by_migration on crossfade_evidence (migration, kind, epoch, id);

create table crossfade_instance (
    migration      integer not null references crossfade_migration,
    name           text    not null,
    adopted        integer not null,
    lease_until_ms integer not null,
    primary key (migration, name)
) strict, without rowid;

create table crossfade_old_path (
    migration       integer not null references crossfade_migration,
    epoch           integer not null,
    last_used_at_ms integer not null,
    primary key (migration, epoch)
) strict, without rowid;

create table crossfade_tally (
    migration  integer not null references crossfade_migration,
    epoch      integer not null,
    instance   text    not null,
    experiment text    not null,
    totals     text    not null,
    primary key (migration, epoch, instance, experiment)
) strict, without rowid;

create table crossfade_mismatch (
    id          integer primary key autoincrement,
    migration   integer not null references crossfade_migration,
    at_ms       integer not null,
    epoch       integer not null,
    experiment  text    not null,
    key         text    not null,
    differences text    not null
) strict;
create index crossfade_mismatch_by_migration on crossfade_mismatch (migration, id);
