import ColdframeKit
import QAPI

@testable import coldframed

/// Everything that the agent is built of: a module that is added to its list is tested without a word here.
enum ModulesUnderTest {
    static let all: [Module] = {
        BranchTable.install(Modules.all.map(\.schema))
        return Modules.all
    }()
}
