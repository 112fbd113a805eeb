package apps

import (
	"testing"

	"github.com/buoy-edge/buoy/internal/testapi"
)

// schemas are the objects of the wire, by their names in the description.
var schemas = map[string]any{
	"AppError": errorObject{}, "AppProblem": problemObject{}, "AppHostReason": hostReason{},
	"AppRegistered": registered{}, "AppApplied": applied{}, "AppAppliedList": appliedList{}, "AppPlanned": planned{}, "AppPlanList": planList{},
	"AppFieldChange": fieldChange{}, "AppRevision": revision{}, "AppRevisionList": revisionList{},
	"AppStart": startBody{}, "AppStarted": started{}, "AppStop": stopBody{}, "AppStopped": stopped{}, "AppScale": scaleBody{}, "AppScaled": scaled{},
	"AppRemoved": removed{}, "App": appObject{}, "AppReplicaCounts": replicaCounts{}, "AppContainer": appContainer{},
	"AppList": appList{}, "AppListItem": listItem{}, "AppListReplicas": listReplicas{},
	"AppMetrics": metrics{}, "AppCurrentMetrics": currentMetrics{}, "AppPastMetrics": pastMetrics{}, "AppMetricsHistory": metricsObject{}, "AppStreamedMetrics": streamedMetrics{},
	"AppSystemMetrics": systemMetrics{}, "AppSystem": systemObject{}, "AppSystemApp": systemApp{}, "AppNetwork": network{},
	"AppEvent": eventObject{}, "AppEventList": eventList{}, "AppLogEntry": logEntry{}, "AppLogList": logList{}, "AppLogFailure": logFailure{}, "AppLogsMissing": logsMissing{},
	"AppPolicy": policy{}, "AppPolicyChange": policyChange{}, "AppScaling": scalingObject{}, "AppScaleEvent": scaleEvent{},
	"AppScalingChanged": scalingChanged{}, "AppSimulation": simulation{}, "AppSimulated": simulated{}, "AppEvaluation": evaluation{},
	"AppHealth": healthObject{}, "AppHealthContainer": healthContainer{}, "AppHealthConfig": healthConfig{}, "AppHealthChecked": healthChecked{},
	"AppRollout": rollout{}, "AppSteered": steered{}, "AppRollback": rollbackBody{}, "AppRebalance": rebalanceBody{}, "AppMove": move{}, "AppMoveList": moveList{},
	"AppExplanation": explanation{}, "AppHostVerdict": hostVerdict{},
	"ControllerConfig": configObject{}, "ControllerListen": Listen{}, "ControllerDatabase": Database{}, "ControllerScaling": scalingConfig{},
	"ControllerHealth": healthDefault{}, "ControllerConfigUpdated": configUpdated{},
	"ClusterStatus": clusterObject{}, "ClusterNode": clusterNode{}, "ClusterLease": lease{}, "ClusterLeader": leaderObject{}, "ClusterHealth": loneHealth{},
}

// TestSchemas compares the objects of the wire with their description.
func TestSchemas(t *testing.T) {
	testapi.Fields(t, "../system/openapi.yaml", schemas)
}
