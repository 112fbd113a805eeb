package apps

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
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
	raw, err := os.ReadFile("../system/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
			}
		}
	}
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for name, v := range schemas {
		var fields, described []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			if tag := f.Tag.Get("json"); tag != "" {
				key, _, _ := strings.Cut(tag, ",")
				fields = append(fields, key)
			}
		}
		for key := range doc.Components.Schemas[name].Properties {
			described = append(described, key)
		}
		slices.Sort(fields)
		slices.Sort(described)
		if diff := cmp.Diff(fields, described); diff != "" {
			t.Errorf("%s: -struct +described\n%s", name, diff)
		}
	}
}
