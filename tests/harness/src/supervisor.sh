# Runs one server as its child: supervisor.sh FOLDER COMMAND…
#
# Each line on standard input is an order: START, or the name of a signal that ends the server. "done"
# answers it. When standard input closes, the process that gave the orders has ended, in whatever way: the
# server is stopped and FOLDER removed. The server being a child, its number cannot pass to another process
# while this one still means to signal it.
folder=$1
shift
server=

end() {
    [ -n "$server" ] || return 0
    children=
    if [ "$1" = KILL ]; then
        # A power cut takes all processes of the server at once, and a new server refuses to start while
        # processes of the old one hold its shared memory.
        children=$(cat "/proc/$server/task/$server/children" 2>/dev/null)
    fi
    kill -s "$1" $server $children 2>/dev/null
    wait "$server" 2>/dev/null
    server=
    for child in $children; do
        while [ -e "/proc/$child/exe" ]; do sleep 0.01; done
    done
}

while read -r order; do
    case $order in
        START)
            "$@" </dev/null >>"$folder/server.log" 2>&1 &
            server=$!
            ;;
        *) end "$order" ;;
    esac
    echo done
done

end QUIT
rm -rf "$folder"
