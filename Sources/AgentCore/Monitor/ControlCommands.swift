import ColdframeKit
import QAPI
import QMPWire

/// The commands about the monitor itself.
@AgentActor
func registerControlCommands(_ commands: CommandTable, hooks: MonitorHooks, schemas: [SchemaFragment]) {
    commands.register(QueryVersionCommand.self) { _ in
        let (major, minor, micro) = AgentVersion.schema
        return VersionInfo(
            qemu: VersionTriple(major: major, minor: minor, micro: micro), package: AgentVersion.package)
    }
    commands.register(QueryCommandsCommand.self) { [weak commands] _ in
        let guest = await hooks.guestCommands()
        let own = (commands?.names ?? []) + [Negotiation.command]
        return Set(own + guest).sorted().map { CommandInfo(name: $0) }
    }
    commands.register(QueryQmpSchemaCommand.self) { _ in
        SchemaMerger.merge(
            own: Introspection.merged(schemas), guest: await hooks.guestSchema(),
            shared: ObjectRegistry.sharedCommands)
    }
    commands.register(QuitCommand.self) { arguments in
        CommandContext.afterReply { hooks.quit(arguments.guest ?? .end == .end) }
        return QAPIEmpty()
    }
}
