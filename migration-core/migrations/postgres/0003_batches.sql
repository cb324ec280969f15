-- How a transaction above read committed learns that a job has written since its snapshot.
--
-- A job inserts rows for keys whose old rows it locks but does not change. A transaction whose snapshot is older
-- sees neither these rows nor any conflict, so that its mirror of such a key would leave behind
-- what it ought to remove. Each batch of a job therefore leaves the ID of its transaction in a sequence,
-- which is read as it is now, whatever the reader's snapshot.
--
-- One sequence would not do: of two batches the one that writes first may commit last. A batch has a sequence
-- to itself until it has committed, so the latest ID in it stands for all before.
create sequence crossfade.batch_1;
create sequence crossfade.batch_2;
create sequence crossfade.batch_3;
create sequence crossfade.batch_4;
create sequence crossfade.batch_5;
create sequence crossfade.batch_6;
create sequence crossfade.batch_7;
create sequence crossfade.batch_8;

-- The last statement of a batch, so that only its commit is waited for where all sequences are taken.
create function crossfade.batch_ends() returns void language plpgsql volatile as $$
declare
    _slot integer;
begin
    for _slot in 1..8 loop
        if pg_try_advisory_xact_lock(1668834916, _slot) then
            perform setval(format('crossfade.batch_%s', _slot), pg_current_xact_id()::text::bigint);
            return;
        end if;
    end loop;
    _slot := 1 + pg_backend_pid() % 8;
    perform pg_advisory_xact_lock(1668834916, _slot);
    perform setval(format('crossfade.batch_%s', _slot), pg_current_xact_id()::text::bigint);
end
$$;

-- Fails with 40001 if a batch has committed since the transaction's snapshot. It is called with the keys
-- locked: a batch that is still under way has none of them.
create function crossfade.refuse_old_snapshot() returns void language plpgsql volatile as $$
declare
    _batch xid8;
begin
    for _batch in
        select last_value::text::xid8 from (
            select last_value from crossfade.batch_1 union all select last_value from crossfade.batch_2
            union all select last_value from crossfade.batch_3 union all select last_value from crossfade.batch_4
            union all select last_value from crossfade.batch_5 union all select last_value from crossfade.batch_6
            union all select last_value from crossfade.batch_7 union all select last_value from crossfade.batch_8
        ) as batches
        where not pg_visible_in_snapshot(last_value::text::xid8, pg_current_snapshot())
    loop
        begin
            continue when pg_xact_status(_batch) <> 'committed';
        exception when invalid_parameter_value then
            -- It lies in the future: the sequences were restored from a dump of another server.
            continue;
        end;
        raise exception 'crossfade: a job has written since this transaction''s snapshot'
            using errcode = 'serialization_failure', hint = 'run the transaction again';
    end loop;
end
$$;
