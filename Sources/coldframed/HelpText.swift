/// What `--help` prints.
enum HelpText {
    static let text = """
        Usage: coldframed [options]
        An agent that stands beside a virtual machine and owns its disks and snapshots.

        Options are followed in the order in which they are given. A value is a JSON
        object, or key=value pairs with dotted keys (a comma in a value is doubled).

          --name NAME            name of the agent; with it the agent keeps state
          --config FILE          configuration in TOML; its parts are followed here
          --object [qom-type=]throttle-group,id=ID[,limits.LIMIT=N...]
                                 make an object that nodes refer to
          --blockdev [driver=]DRIVER[,node-name=NODE][,read-only=on|off]
                     [,auto-read-only=on|off][,force-share=on|off]
                     [,discard=ignore|unmap][,cache.direct=on|off]
                     [,cache.no-flush=on|off][,DRIVER'S OPTIONS...]
                                 open an image as a block node
          --nbd-server addr.type=unix,addr.path=PATH[,max-connections=N]
          --nbd-server addr.type=inet,addr.host=HOST,addr.port=PORT[,max-connections=N]
                                 start the NBD server
          --export [type=]nbd,id=ID,node-name=NODE[,name=NAME][,writable=on|off]
                                 export a node (after --nbd-server)
          --chardev stdio,id=ID
          --chardev socket,id=ID,path=PATH[,server=on|off][,wait=on|off]
          --chardev socket,id=ID,host=HOST,port=PORT[,server=on|off][,wait=on|off]
                                 a channel for a monitor; TCP on loopback only
          --monitor [chardev=]ID[,mode=control][,pretty=on|off][,id=ID]
                                 a QMP monitor on a chardev
          --allow-backing DIR    follow backing files that images name into this folder
          --end-with-parent PID  end as at SIGTERM when this parent process ends, however
          --guest-at-exit keep|end
                                 what becomes of the guest at SIGTERM (default: keep)
          --pidfile PATH         write the process ID there once all is started
          --fault-points         list the points of COLDFRAME_FAULT, for tests, and exit
          -h, --help             print this and exit
          -V, --version          print the version and exit
        """
}
